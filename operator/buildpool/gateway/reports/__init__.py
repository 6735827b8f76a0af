"""What is reported of builds: to the log, and to the operator in the status of pools."""

"""The rim towards Kubernetes: read, apply, delete, report; Events; leadership.

The only place that knows HTTP and maps its errors. It decides nothing.
"""

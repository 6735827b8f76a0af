"""One builder's control API over gRPC and mTLS."""

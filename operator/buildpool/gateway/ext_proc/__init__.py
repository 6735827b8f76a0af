"""What Envoy asks about each request, and what it is answered."""

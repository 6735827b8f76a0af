"""Answers Envoy's question about each request: where it goes, and with what.

processor       the conversation about one request, by what it means
calls           the request: what Envoy says of it
authorization   what a client may do, and with which builds
traits          what a build is of, and which builder suits it
caching         which shared caches are added to a build
bodies          the messages that are read, and what is added to them
records         what is asked about builds that have ended
running         a build that runs, until it ends
losses          how a request is seen to have lost its builder
responses       what Envoy is answered
"""

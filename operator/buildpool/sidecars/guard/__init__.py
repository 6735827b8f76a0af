"""The program beside each builder: it lets no cache through that nobody vouches for."""

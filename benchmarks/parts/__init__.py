"""What runs in the processes of a side: our bus, and each peer."""

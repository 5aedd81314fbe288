"""What every process of ours has, whatever it does: its event loop, its log lines, its exit status."""

"""Who may reach us, who asks, and what they may do."""

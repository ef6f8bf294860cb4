"""What people see of the gap."""

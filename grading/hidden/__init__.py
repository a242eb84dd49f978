"""What students never receive."""

"""What students never receive. The rooms are the stations of a submission, in the order in which it passes them."""

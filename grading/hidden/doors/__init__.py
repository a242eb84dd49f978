"""Where marks go: the gradebooks and platforms that courses use."""

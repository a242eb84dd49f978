"""Where marks come from and go to: rosters, learning platforms, gradebooks."""

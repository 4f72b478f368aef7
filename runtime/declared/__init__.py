"""What a user declares: the app and all that is registered in it. Data about code."""

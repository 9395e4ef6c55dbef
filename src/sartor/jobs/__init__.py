"""What a user asks for, end to end: fit, search, measure, verify."""

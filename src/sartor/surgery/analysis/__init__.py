"""Which channels of a network belong together, which blocks can be skipped, and what each number of channels costs."""

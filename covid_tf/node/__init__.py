"""A node that scores what it is sent: `covid-tf node` (extra `clinic`)."""

"""Pictures, and which token of a model is which piece of one."""

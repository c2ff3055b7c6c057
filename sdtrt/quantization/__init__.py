"""fp8 and int8: activation ranges from real images, by ModelOpt or for backends that round by themselves."""

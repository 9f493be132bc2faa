"""A page that sings: a server whose listeners each have a stream of their own, played while it is sampled."""

"""The HTTP doors: the data path, the registry, the queue and the admin's verbs."""

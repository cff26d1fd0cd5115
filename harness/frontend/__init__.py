"""Reading MXNet models without MXNet."""

"""The engines: each a module with the functions of :class:`~harness.engines.base.Engine`, imported when first used."""

"""Engines do the work. They know no account, no HTTP and no database: paths in, paths and facts out."""

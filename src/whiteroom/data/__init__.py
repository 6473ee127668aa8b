"""Where data lies and how it is read: keys, files, catalogs, tables, seeds and the embedded S3 endpoint."""

"""`whiteroom demo`: two accounts go from interactions to an exported audience, as any client of AWS's would.

`population` and `own_files` give the data, `server` starts a real server, `flow` speaks boto3 to it,
`findings` measures the result, `terminal` and `picture` show it. The only state is in files.
"""

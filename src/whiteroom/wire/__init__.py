"""HTTP and AWS: routes, signatures, shapes. Knows nothing of clean rooms, accounts or databases.

One request: `routes.match` -> `sigv4.verify` -> `codec.parse` -> the operation's handler -> `codec.dump`;
`service.Service` strings them together as an ASGI app.
"""

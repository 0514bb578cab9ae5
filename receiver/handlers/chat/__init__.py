"""Chat handlers, and what they share.

`message` composes the message and `template` renders an operator's own text; `base` has the common
part of the handlers, `http` the client for the services, and `media` the upload of results.
"""

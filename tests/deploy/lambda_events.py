"""Requests as Lambda gets them, by what stands before it.

Their shapes are those of https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html,
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
and https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

Headers = Mapping[str, str]
Shape = Callable[[str, str, Headers, str, bool], dict[str, Any]]


def function_url(
    method: str, path: str, headers: Headers, body: str, encoded: bool
) -> dict[str, Any]:
    """A function URL: payload 2.0, names of headers in lower case."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefghij",
            "domainName": "abcdefghij.lambda-url.eu-west-1.on.aws",
            "domainPrefix": "abcdefghij",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "webhooks",
            },
            "requestId": "4f1f2b4e-0000-4000-8000-000000000000",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Aug/2026:12:00:00 +0000",
            "timeEpoch": 1785585600000,
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def http_api(method: str, path: str, headers: Headers, body: str, encoded: bool) -> dict[str, Any]:
    """An HTTP API of API Gateway: payload 2.0 with a route."""
    event = function_url(method, path, headers, body, encoded)
    event["routeKey"] = event["requestContext"]["routeKey"] = "ANY /{proxy+}"
    event["pathParameters"] = {"proxy": path.removeprefix("/")}
    return event


def rest_api(method: str, path: str, headers: Headers, body: str, encoded: bool) -> dict[str, Any]:
    """A REST API of API Gateway: payload 1.0, names of headers as the sender wrote them."""
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.removeprefix("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": method,
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "stage": "prod",
            "requestId": "4f1f2b4e-0000-4000-8000-000000000001",
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "webhooks"},
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def load_balancer(
    method: str, path: str, headers: Headers, body: str, encoded: bool
) -> dict[str, Any]:
    """An Application Load Balancer."""
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/wavehook/0123456789"
    return {
        "requestContext": {"elb": {"targetGroupArn": arn}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": body,
        "isBase64Encoded": encoded,
    }


SHAPES: tuple[Shape, ...] = (function_url, http_api, rest_api, load_balancer)


def event(
    shape: Shape,
    path: str,
    headers: Headers,
    body: bytes = b"",
    *,
    method: str = "POST",
    encoded: bool = False,
) -> dict[str, Any]:
    """One request.

    Args:
        shape: what stands before the function.
        path: of the URL.
        headers: of the sender.
        body: as it was signed.
        method: of HTTP.
        encoded: the body comes in base64.
    """
    text = base64.b64encode(body).decode() if encoded else body.decode()
    return shape(method, path, headers, text, encoded)

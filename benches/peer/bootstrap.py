"""The least runtime for a Python function: imports the handler, then takes one event after the other."""

import http.client
import json
import os

from task_state import handle

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation"
while True:
    api.request("GET", f"{base}/next")
    answer = api.getresponse()
    request_id = answer.headers["lambda-runtime-aws-request-id"]
    event = json.loads(answer.read())
    try:
        result, outcome = handle(event), "response"
    except Exception as error:  # Lambda gets every error
        result, outcome = {"errorType": type(error).__name__, "errorMessage": str(error)}, "error"
    api.request("POST", f"{base}/{request_id}/{outcome}", json.dumps(result))
    api.getresponse().read()

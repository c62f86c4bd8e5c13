"""A real S3 server for tests: moto's, over HTTP or TLS, with users whose keys and rights it checks.

It runs in an environment of its own (requirements/s3-server.txt), because what it stands on cannot be
installed beside the Kubernetes client; so it imports nothing of ours. It says on its first line where it is
and which keys it knows, and ends when its standard input does.

    python s3_server.py [--host ADDRESS] [--certificate FILE --key FILE]
"""

import argparse
import json
import logging
import os
import sys
import threading

BUCKETS = ("models", "others")
ALLOWED = [
    {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]},
    # S3 tells only those that may list buckets whether one is missing.
    {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::missing", "arn:aws:s3:::missing/*"]},
]
READ_ONLY = [
    {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"],
    }
]


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "100000"  # read by moto at its import

    import boto3
    from botocore.config import Config
    from moto.core.responses import ActionAuthenticatorMixin
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    tls = (arguments.certificate, arguments.key) if arguments.certificate else None
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(arguments.host, 0, app, threaded=True, ssl_context=tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"{'https' if tls else 'http'}://{arguments.host}:{server.server_port}"

    def ask(service: str):
        return boto3.client(
            service,
            endpoint_url=url,
            verify=arguments.certificate,
            region_name="us-east-1",
            aws_access_key_id="setup",
            aws_secret_access_key="setup",
            config=Config(s3={"addressing_style": "path"}),
        )

    for name in BUCKETS:
        ask("s3").create_bucket(Bucket=name)
    said: dict[str, object] = {"url": url}
    for user, statements in (("writer", ALLOWED), ("reader", READ_ONLY)):
        ask("iam").create_user(UserName=user)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        ask("iam").put_user_policy(UserName=user, PolicyName="own", PolicyDocument=document)
        key = ask("iam").create_access_key(UserName=user)["AccessKey"]
        said[user] = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    # From here on it checks every request.
    ActionAuthenticatorMixin.request_count = 10**9
    print(json.dumps(said), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

"""Creates the bucket that FERRY_BUCKET names, if it does not exist yet."""

from __future__ import annotations

import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main() -> int:
    """Return 0 if the bucket is there at the end, else 1 after one line that says why not."""
    endpoint, bucket = os.environ["FERRY_S3_ENDPOINT_URL"], os.environ["FERRY_BUCKET"]
    client = boto3.client("s3", endpoint_url=endpoint)
    try:
        existing = {each["Name"] for each in client.list_buckets()["Buckets"]}
        if bucket not in existing:
            client.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        sys.stderr.write(f"bucket {bucket} at {endpoint}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

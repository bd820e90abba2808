# A product in Python, with boto3: python3 product.py ENDPOINT. There are two streams to be had.
import os, sys
import boto3

client = boto3.client("license-manager", endpoint_url=sys.argv[1], region_name="us-east-1",
                      aws_access_key_id=os.environ["USHER_KEY"], aws_secret_access_key=os.environ["USHER_SECRET"])
licence = client.list_received_licenses(Filters=[{"Name": "ProductSKU", "Values": ["acme"]}])["Licenses"][0]


def checkout(token, n, unit="Count"):
    return client.checkout_license(ProductSKU="acme", KeyFingerprint=licence["Issuer"]["KeyFingerprint"], CheckoutType="PROVISIONAL", ClientToken=token,
                                   Entitlements=[{"Name": "streams", "Unit": unit, **({"Value": str(n)} if unit == "Count" else {})}])


def refused(error, call, *args, **named):
    try:
        call(*args, **named)
    except error:
        return
    raise SystemExit(f"{call} is not refused with {error}")


first = checkout("py-1", 2)
assert first["EntitlementsAllowed"] == [{"Name": "streams", "Unit": "Count", "Value": "2"}], first
assert checkout("py-1", 2)["LicenseConsumptionToken"] == first["LicenseConsumptionToken"]
refused(client.exceptions.ValidationException, checkout, "py-1", 1)
refused(client.exceptions.NoEntitlementsAllowedException, checkout, "py-2", 1)
refused(client.exceptions.NoEntitlementsAllowedException, checkout, "py-3", 1, "None")
token = first["LicenseConsumptionToken"]
assert client.extend_license_consumption(LicenseConsumptionToken=token)["LicenseConsumptionToken"] == token
usage = client.get_license_usage(LicenseArn=licence["LicenseArn"])["LicenseUsage"]["EntitlementUsages"]
assert {"Name": "streams", "Unit": "Count", "ConsumedValue": "2", "MaxCount": "2"} in usage, usage
client.check_in_license(LicenseConsumptionToken=token)
refused(client.exceptions.ResourceNotFoundException, client.check_in_license, LicenseConsumptionToken=token)
stranger = boto3.client("license-manager", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id=os.environ["USHER_KEY"], aws_secret_access_key="not its secret")
refused(client.exceptions.AccessDeniedException, stranger.get_license, LicenseArn=licence["LicenseArn"])

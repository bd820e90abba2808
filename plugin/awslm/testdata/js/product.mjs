// A product in JavaScript, with AWS's own client: node product.mjs ENDPOINT [SOCKET]. There are two streams to be had.
import assert from "node:assert/strict"
import { verify, constants } from "node:crypto"
import http from "node:http"
import {
  LicenseManagerClient, CheckoutLicenseCommand, CheckoutBorrowLicenseCommand, ExtendLicenseConsumptionCommand, CheckInLicenseCommand, GetAccessTokenCommand,
  GetLicenseCommand, GetLicenseUsageCommand, ListReceivedLicensesCommand, NoEntitlementsAllowedException, ResourceNotFoundException, ValidationException,
  EntitlementNotAllowedException, InvalidParameterValueException, AuthorizationException, AccessDeniedException,
} from "@aws-sdk/client-license-manager"

const [endpoint, socketPath] = process.argv.slice(2)
const product = `js-${socketPath ? "socket" : "tcp"}`
const options = { endpoint, region: "us-east-1", credentials: { accessKeyId: process.env.USHER_KEY, secretAccessKey: process.env.USHER_SECRET } }
if (socketPath) options.requestHandler = { httpAgent: new http.Agent({ socketPath }) }
const client = new LicenseManagerClient(options)
const send = (command) => client.send(command)

const { Licenses } = await send(new ListReceivedLicensesCommand({ Filters: [{ Name: "ProductSKU", Values: ["acme"] }], MaxResults: 1 }))
assert.equal(Licenses.length, 1)
const { LicenseArn, Issuer: { KeyFingerprint } } = Licenses[0]
const { License } = await send(new GetLicenseCommand({ LicenseArn }))
assert.equal(License.Status, "AVAILABLE")

const checkout = (token, entitlements, CheckoutType = "PROVISIONAL") => new CheckoutLicenseCommand({
  ProductSKU: "acme", KeyFingerprint, CheckoutType, ClientToken: `${product}-${token}`, NodeId: "node", Entitlements: entitlements })
const streams = (n) => [{ Name: "streams", Unit: "Count", Value: String(n) }]

const first = await send(checkout("1", [...streams(2), { Name: "none", Unit: "None" }]))
assert.deepEqual(first.EntitlementsAllowed, streams(2))
assert.equal(first.NodeId, "node")
const again = await send(checkout("1", [...streams(2), { Name: "none", Unit: "None" }]))
assert.equal(again.LicenseConsumptionToken, first.LicenseConsumptionToken)
assert.equal(again.Expiration, first.Expiration)
await assert.rejects(send(checkout("1", streams(1))), ValidationException)
await assert.rejects(send(checkout("2", streams(1))), (e) => e instanceof NoEntitlementsAllowedException && e.message.includes("2 of 2") && Boolean(e.$metadata.requestId))
await assert.rejects(send(checkout("3", [])), ValidationException)

const used = async (name) => (await send(new GetLicenseUsageCommand({ LicenseArn }))).LicenseUsage.EntitlementUsages.find((u) => u.Name === name)
assert.deepEqual(await used("streams"), { Name: "streams", Unit: "Count", ConsumedValue: "2", MaxCount: "2" })

const LicenseConsumptionToken = first.LicenseConsumptionToken
const dry = await send(new ExtendLicenseConsumptionCommand({ LicenseConsumptionToken, DryRun: true }))
const extended = await send(new ExtendLicenseConsumptionCommand({ LicenseConsumptionToken }))
assert.ok(Date.parse(extended.Expiration) >= Date.parse(dry.Expiration) && Date.parse(dry.Expiration) > Date.now())
await send(new CheckInLicenseCommand({ LicenseConsumptionToken }))
await assert.rejects(send(new ExtendLicenseConsumptionCommand({ LicenseConsumptionToken })), ResourceNotFoundException)

const drawn = await send(checkout("draw", [{ Name: "uses", Unit: "Count", Value: "1" }], "PERPETUAL"))
assert.equal((await send(checkout("draw", [{ Name: "uses", Unit: "Count", Value: "1" }], "PERPETUAL"))).LicenseConsumptionToken, drawn.LicenseConsumptionToken)
await assert.rejects(send(new CheckInLicenseCommand({ LicenseConsumptionToken: drawn.LicenseConsumptionToken })), InvalidParameterValueException)

const borrow = (token, entitlements) => new CheckoutBorrowLicenseCommand({ LicenseArn, DigitalSignatureMethod: "JWT_PS384", ClientToken: `${product}-${token}`, NodeId: "node", Entitlements: entitlements })
await assert.rejects(send(borrow("b1", [{ Name: "uses", Unit: "Count", Value: "1" }])), EntitlementNotAllowedException)
const borrowed = await send(borrow("b2", streams(1)))
const pem = await new Promise((resolve, reject) => http.get(socketPath ? { socketPath, path: "/signing-key", host: "localhost" } : `${endpoint}/signing-key`, (r) => {
  let s = ""
  r.on("data", (d) => (s += d)).on("end", () => resolve(s))
}).on("error", reject))
const [head, payload, signature] = borrowed.SignedToken.split(".")
assert.deepEqual(JSON.parse(Buffer.from(head, "base64url")), { alg: "PS384", typ: "JWT" })
assert.ok(verify("sha384", Buffer.from(`${head}.${payload}`), { key: pem, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 }, Buffer.from(signature, "base64url")))
assert.equal(JSON.parse(Buffer.from(payload, "base64url")).licenseConsumptionToken, borrowed.LicenseConsumptionToken)
await send(new CheckInLicenseCommand({ LicenseConsumptionToken: borrowed.LicenseConsumptionToken }))

await assert.rejects(send(new GetAccessTokenCommand({ Token: "a.b.c" })), AuthorizationException)
if (!socketPath) {
  const stranger = new LicenseManagerClient({ ...options, credentials: { accessKeyId: process.env.USHER_KEY, secretAccessKey: "not the secret of that key" } })
  await assert.rejects(stranger.send(new GetLicenseCommand({ LicenseArn })), (e) => e instanceof AccessDeniedException && e.message.includes("does not match"))
}
assert.equal((await used("streams")).ConsumedValue, "0")
console.log("all is well")

// What a product does with the client for JavaScript: product.mjs ADDRESS SOCKET CREDENTIAL PLATINUM.json GOLD.json
// The Unix socket at SOCKET knows its caller; at ADDRESS, over TCP, the credential is needed.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import http from 'node:http'
import { Client, HttpConnection } from '@elastic/elasticsearch'

const [address, socketPath, credential, platinum, gold] = process.argv.slice(2)
const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8'))
const [username, password] = credential.split(':')

const es = new Client({
  node: 'http://localhost', Connection: HttpConnection, agent: () => new http.Agent({ socketPath }), maxRetries: 0
})
assert.equal((await es.info()).version.number, '9.0.0')
await assert.rejects(es.license.get(), (e) => e.statusCode === 404)
let out = await es.license.post({ ...read(platinum) })
assert.deepEqual([out.acknowledged, out.license_status], [true, 'valid'])
out = await es.license.post({ ...read(gold) })
assert.equal(out.acknowledged, false)
assert.ok(out.acknowledge.message)
assert.equal((await es.license.get()).license.type, 'platinum')
out = await es.license.post({ ...read(gold), acknowledge: true })
assert.equal(out.acknowledged, true)
const { license } = await es.license.get()
assert.deepEqual([license.type, license.status, license.max_nodes, license.signature], ['gold', 'active', 3, undefined])
await assert.rejects(es.license.postStartTrial({ acknowledge: true }),
  (e) => e.statusCode === 403 && e.body.trial_was_started === false)
assert.equal((await es.license.getTrialStatus()).eligible_to_start_trial, false)
assert.equal((await es.license.getBasicStatus()).eligible_to_start_basic, false)

const tcp = new Client({ node: address, auth: { username, password }, maxRetries: 0 })
assert.equal((await tcp.license.get()).license.uid, license.uid)
await assert.rejects(tcp.license.delete(), (e) => e.statusCode === 403)
const stranger = new Client({ node: address, auth: { apiKey: 'another-credential' }, maxRetries: 0 })
await assert.rejects(stranger.license.get(), (e) => e.statusCode === 401)

assert.equal((await es.license.delete()).acknowledged, true)
await assert.rejects(es.license.get(), (e) => e.statusCode === 404)

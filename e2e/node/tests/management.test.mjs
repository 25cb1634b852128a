// npm auth0: the ManagementClient, unchanged.
import test from 'node:test'
import assert from 'node:assert/strict'
import { management, connection, address, unique, password, domain, tenant } from '../lib.mjs'
import { ManagementClient } from 'auth0'

const list = (page) => page.data ?? page

test('users are created, found, changed, and deleted', async () => {
  const email = address('crud')
  const made = await management.users.create({ connection, email, password, user_metadata: { color: 'green' }, app_metadata: { plan: 'gold' } })
  assert.match(made.user_id, /^auth0\|[0-9a-f]{24}$/)
  assert.equal((await management.users.get(made.user_id)).email, email)
  const byEmail = await management.users.listUsersByEmail({ email })
  assert.equal(byEmail[0].user_id, made.user_id)
  const found = list(await management.users.list({ q: `email:"${email}" AND app_metadata.plan:gold`, search_engine: 'v3' }))
  assert.deepEqual(found.map(u => u.user_id), [made.user_id])
  const changed = await management.users.update(made.user_id, { user_metadata: { size: 'XL' }, blocked: true })
  assert.deepEqual(changed.user_metadata, { color: 'green', size: 'XL' })
  assert.equal(changed.blocked, true)
  await management.users.delete(made.user_id)
  await assert.rejects(management.users.get(made.user_id), e => e.statusCode === 404)
  await assert.rejects(management.users.create({ connection, email: 'no address', password }), e => e.statusCode === 400)
})

test('roles and permissions reach users', async () => {
  const identifier = `https://${unique('api')}.example.com/`
  const api = await management.resourceServers.create({ name: unique('api'), identifier, scopes: [{ value: 'read:things', description: 'Read things' }] })
  const role = await management.roles.create({ name: unique('role'), description: 'd' })
  await management.roles.permissions.add(role.id, { permissions: [{ resource_server_identifier: identifier, permission_name: 'read:things' }] })
  const user = await management.users.create({ connection, email: address('role'), password })
  await management.users.roles.assign(user.user_id, { roles: [role.id] })
  assert.deepEqual(list(await management.users.roles.list(user.user_id)).map(r => r.id), [role.id])
  assert.deepEqual(list(await management.roles.users.list(role.id)).map(u => u.user_id), [user.user_id])
  await management.roles.delete(role.id)
  assert.deepEqual(list(await management.users.roles.list(user.user_id)), [])
  await management.resourceServers.delete(api.id)
})

test('clients have secrets that rotate, and pages', async () => {
  const client = await management.clients.create({ name: unique('client'), app_type: 'regular_web' })
  const rotated = await management.clients.rotateSecret(client.client_id)
  assert.notEqual(rotated.client_secret, client.client_secret)
  const page = await management.clients.list({ per_page: 1, page: 0, include_totals: true })
  assert.equal(list(page).length, 1)
  await management.clients.delete(client.client_id)
})

test('keys rotate, settings change, logs tell', async () => {
  const before = await management.keys.signing.list()
  const next = before.find(k => k.next)
  const rotated = await management.keys.signing.rotate()
  assert.equal(rotated.kid, next.kid)
  const settings = await management.tenants.settings.update({ friendly_name: 'Tenant One' })
  assert.equal(settings.friendly_name, 'Tenant One')
  for (let i = 0; ; i++) {
    const logs = list(await management.logs.list({ q: 'type:sapi', sort: 'date:-1', per_page: 50 }))
    if (logs.some(l => l.description?.includes('/keys/signing/rotate'))) break
    assert.ok(i < 50, 'the rotation is not in the log')
    await new Promise(r => setTimeout(r, 100))
  }
})

test('tickets and jobs', async () => {
  const user = await management.users.create({ connection, email: address('ticket'), password })
  const ticket = await management.tickets.changePassword({ user_id: user.user_id, result_url: 'https://app.example.com/done' })
  assert.match(ticket.ticket, new RegExp(`^https://${domain}/u/reset-password\\?ticket=`))
  const job = await management.jobs.verificationEmail.create({ user_id: user.user_id })
  for (let i = 0; ; i++) {
    if ((await management.jobs.get(job.id)).status === 'completed') break
    assert.ok(i < 50, 'the job did not end')
    await new Promise(r => setTimeout(r, 100))
  }
})

test('a wrong secret and a missing scope are refused', async () => {
  const wrong = new ManagementClient({ domain, clientId: tenant.client_id, clientSecret: 'x'.repeat(32) })
  await assert.rejects(async () => list(await wrong.users.list()))
  const res = await fetch(`https://${domain}/api/v2/users`)
  assert.equal(res.status, 401)
  assert.equal((await res.json()).statusCode, 401)
})

// npm auth0: the AuthenticationClient, unchanged.
import test from 'node:test'
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { application, address, connection, domain, linkIn, mailTo, management, password, tenant, unique } from '../lib.mjs'

const { AuthenticationClient } = createRequire(import.meta.url)('auth0/legacy')

test('sign up, log in with a password, refresh with rotation, revoke', async () => {
  const identifier = `https://${unique('api')}.example.com/`
  await management.resourceServers.create({ name: unique('api'), identifier, allow_offline_access: true, scopes: [{ value: 'read:things' }] })
  const client = await application({
    name: unique('ropg'), app_type: 'regular_web', grant_types: ['password', 'http://auth0.com/oauth/grant-type/password-realm', 'refresh_token'],
    refresh_token: { rotation_type: 'rotating', expiration_type: 'expiring', leeway: 0, token_lifetime: 3600, idle_token_lifetime: 1800 },
  })
  const auth = new AuthenticationClient({ domain, clientId: client.client_id, clientSecret: client.client_secret })
  const email = address('ropg')
  const { data: user } = await auth.database.signUp({ connection, email, password })
  assert.equal(user.email, email)
  assert.equal(user.email_verified, false)
  await assert.rejects(auth.database.signUp({ connection, email, password }), e => e.statusCode === 400)
  await assert.rejects(auth.database.signUp({ connection, email: address('weak'), password: 'password' }), e => e.statusCode === 400)

  const { data: tokens } = await auth.oauth.passwordGrant({ username: email, password, realm: connection, audience: identifier, scope: 'openid offline_access read:things' })
  assert.ok(tokens.id_token && tokens.refresh_token)
  assert.equal(tokens.token_type, 'Bearer')
  await assert.rejects(auth.oauth.passwordGrant({ username: email, password: 'wrong', realm: connection }), e => e.statusCode === 403 && e.error === 'invalid_grant')

  const { data: second } = await auth.oauth.refreshTokenGrant({ refresh_token: tokens.refresh_token })
  assert.notEqual(second.refresh_token, tokens.refresh_token)
  // The old one came back: the whole family ends.
  await assert.rejects(auth.oauth.refreshTokenGrant({ refresh_token: tokens.refresh_token }), e => e.error === 'invalid_grant')
  await assert.rejects(auth.oauth.refreshTokenGrant({ refresh_token: second.refresh_token }), e => e.error === 'invalid_grant')
})

test('client credentials', async () => {
  const auth = new AuthenticationClient({ domain, clientId: tenant.client_id, clientSecret: tenant.client_secret })
  const { data } = await auth.oauth.clientCredentialsGrant({ audience: `https://${domain}/api/v2/` })
  assert.equal(data.token_type, 'Bearer')
  await assert.rejects(auth.oauth.clientCredentialsGrant({ audience: 'https://nobody.example.com' }), e => e.error === 'access_denied')
})

test('a forgotten password is reset by mail', async () => {
  const client = await application({ name: unique('reset'), app_type: 'regular_web', grant_types: ['http://auth0.com/oauth/grant-type/password-realm'] })
  const auth = new AuthenticationClient({ domain, clientId: client.client_id, clientSecret: client.client_secret })
  const email = address('reset')
  await auth.database.signUp({ connection, email, password })
  const known = await auth.database.changePassword({ connection, email })
  const unknown = await auth.database.changePassword({ connection, email: address('nobody') })
  assert.equal(known.data, unknown.data)
  const link = linkIn(await mailTo(email, /Reset/))
  const fresh = 'Another-horse-8-battery'
  const ticket = new URL(link).searchParams.get('ticket')
  const res = await fetch(`https://${domain}/u/reset-password`, { method: 'POST', body: new URLSearchParams({ ticket, password: fresh, repeat: fresh }) })
  assert.equal(res.status, 200)
  const again = await fetch(`https://${domain}/u/reset-password`, { method: 'POST', body: new URLSearchParams({ ticket, password: fresh, repeat: fresh }) })
  assert.equal(again.status, 400)
  await assert.rejects(auth.oauth.passwordGrant({ username: email, password, realm: connection }))
  await auth.oauth.passwordGrant({ username: email, password: fresh, realm: connection })
})

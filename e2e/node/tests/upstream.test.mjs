// npm oauth2-mock-server, unchanged, as the provider of a connection.
import test from 'node:test'
import assert from 'node:assert/strict'
import * as client from 'openid-client'
import { OAuth2Server } from 'oauth2-mock-server'
import { address, application, browser, enable, issuer, management, serve, unique } from '../lib.mjs'

test('log in through another OpenID Connect provider', async () => {
  const upstream = new OAuth2Server()
  await upstream.issuer.keys.generate('RS256')
  await upstream.start(0, 'localhost')
  const email = address('upstream')
  upstream.service.on('beforeTokenSigning', (token) => {
    Object.assign(token.payload, { sub: 'johndoe', aud: 'portcullis', email, email_verified: true, name: 'John Doe' })
  })
  let callback
  const app = await serve((req, res) => { if (req.url.startsWith('/cb')) callback = req.url; res.end('welcome') })
  const { page, close } = await browser()
  try {
    const name = unique('corp')
    await management.connections.create({
      name, strategy: 'oidc', display_name: 'Corporate login',
      options: { type: 'back_channel', issuer: upstream.issuer.url, discovery_url: `${upstream.issuer.url}/.well-known/openid-configuration`, client_id: 'portcullis', client_secret: 'secret', scope: 'openid profile email' },
    })
    const registered = await application({ name: unique('rp'), app_type: 'regular_web', callbacks: [`${app.url}/cb`] })
    await enable(registered.client_id, name)
    const config = await client.discovery(new URL(issuer), registered.client_id, registered.client_secret)
    const verifier = client.randomPKCECodeVerifier(), state = client.randomState()
    await page.goto(client.buildAuthorizationUrl(config, {
      redirect_uri: `${app.url}/cb`, scope: 'openid profile email', state,
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    }).href)
    await page.click('text=Corporate login')
    await page.waitForURL(`${app.url}/cb**`)
    const tokens = await client.authorizationCodeGrant(config, new URL(callback, app.url), { pkceCodeVerifier: verifier, expectedState: state })
    assert.equal(tokens.claims().email, email)
    assert.equal(tokens.claims().sub, `oidc|${name}|johndoe`)
    const user = await management.users.get(`oidc|${name}|johndoe`)
    assert.equal(user.identities[0].connection, name)
    assert.equal(user.email_verified, true)
  } finally {
    await close()
    await app.close()
    await upstream.stop()
  }
})

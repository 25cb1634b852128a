// npm openid-client, unchanged: code with PKCE through the browser, sign-up,
// verification by mail, userinfo, refresh, logout.
import test from 'node:test'
import assert from 'node:assert/strict'
import * as client from 'openid-client'
import { address, application, browser, domain, issuer, linkIn, logIn, mailTo, management, serve, signUp, unique } from '../lib.mjs'

test('sign up, verify, log in, userinfo, refresh, log out', async () => {
  let callback
  const app = await serve((req, res) => { if (req.url.startsWith('/cb')) callback = req.url; res.end('welcome') })
  const { page, close } = await browser()
  try {
    const registered = await application({
      name: unique('rp'), app_type: 'regular_web', callbacks: [`${app.url}/cb`], allowed_logout_urls: [`${app.url}/bye`],
      grant_types: ['authorization_code', 'refresh_token'],
    })
    const config = await client.discovery(new URL(issuer), registered.client_id, registered.client_secret)
    const verifier = client.randomPKCECodeVerifier(), state = client.randomState(), nonce = client.randomNonce()
    const to = client.buildAuthorizationUrl(config, {
      redirect_uri: `${app.url}/cb`, scope: 'openid profile email offline_access', state, nonce,
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
    })
    const email = address('rp')
    await page.goto(to.href)
    await signUp(page, email)
    await page.waitForURL(`${app.url}/**`)
    const tokens = await client.authorizationCodeGrant(config, new URL(callback, app.url), { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce })
    const claims = tokens.claims()
    assert.equal(claims.email, email)
    assert.equal(claims.email_verified, false)
    // The code works once.
    await assert.rejects(client.authorizationCodeGrant(config, new URL(callback, app.url), { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce }))

    await page.goto(linkIn(await mailTo(email, /Verify/)))
    await page.click('button.primary')
    await page.waitForSelector('.tick')
    const user = (await management.users.listUsersByEmail({ email }))[0]
    assert.equal(user.email_verified, true)

    // The second use of the code revoked its tokens: log in again, by the session.
    const verifier2 = client.randomPKCECodeVerifier(), state2 = client.randomState()
    await page.goto(client.buildAuthorizationUrl(config, {
      redirect_uri: `${app.url}/cb`, scope: 'openid email offline_access', state: state2,
      code_challenge: await client.calculatePKCECodeChallenge(verifier2), code_challenge_method: 'S256',
    }).href)
    await page.waitForURL(`${app.url}/**`)
    const sso = await client.authorizationCodeGrant(config, new URL(callback, app.url), { pkceCodeVerifier: verifier2, expectedState: state2 })
    assert.equal(sso.claims().email_verified, true)
    const info = await client.fetchUserInfo(config, sso.access_token, sso.claims().sub)
    assert.equal(info.email, email)
    const refreshed = await client.refreshTokenGrant(config, sso.refresh_token)
    assert.ok(refreshed.access_token && refreshed.id_token)
    await client.tokenRevocation(config, refreshed.refresh_token ?? sso.refresh_token)
    await assert.rejects(client.refreshTokenGrant(config, refreshed.refresh_token ?? sso.refresh_token))

    await page.goto(client.buildEndSessionUrl(config, { id_token_hint: sso.id_token, post_logout_redirect_uri: `${app.url}/bye` }).href)
    await page.waitForURL(`${app.url}/bye**`)
    await page.goto(to.href)
    await page.waitForSelector('input[name=password]')
    await logIn(page, email)
    await page.waitForURL(`${app.url}/**`)
  } finally {
    await close()
    await app.close()
  }
})

test('an unknown redirect URI is a page, never a redirect', async () => {
  const registered = await application({ name: unique('rp'), app_type: 'regular_web', callbacks: ['https://app.example.com/cb'] })
  for (const uri of ['https://app.example.com.evil.test/cb', 'https://app.example.com/cb/../x', 'https://app.example.com/cb?x=1', 'HTTPS://app.example.com/cb']) {
    const res = await fetch(`https://${domain}/authorize?` + new URLSearchParams({ client_id: registered.client_id, response_type: 'code', redirect_uri: uri }), { redirect: 'manual' })
    assert.equal(res.status, 400, uri)
    assert.equal(res.headers.get('location'), null)
    assert.match(await res.text(), /Request id/)
  }
})

// npm @auth0/auth0-spa-js, unchanged, in a page: log in with PKCE, refresh with
// rotation, silent authentication in a frame, log out.
import test from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { address, application, browser, connection, domain, logIn, management, password, serve, unique } from '../lib.mjs'

const library = readFileSync(createRequire(import.meta.url).resolve('@auth0/auth0-spa-js').replace(/[^/]*$/, '') + '../auth0-spa-js.production.js', 'utf8').toString()

async function spa(extra) {
  let config = {}
  const server = await serve((req, res) => {
    if (req.url === '/auth0.js') return res.setHeader('content-type', 'text/javascript').end(library)
    res.setHeader('content-type', 'text/html').end(`<!doctype html><title>spa</title><script src="/auth0.js"></script>
      <script>window.ready = auth0.createAuth0Client(${JSON.stringify(config)}).then(async c => {
        window.c = c
        if (location.search.includes('code=') || location.search.includes('error=')) { await c.handleRedirectCallback(); history.replaceState({}, '', '/') }
        document.title = await c.isAuthenticated() ? 'in' : 'out'
      }).catch(e => { document.title = 'failed: ' + e.message })</script>`)
  })
  const client = await application({ name: unique('spa'), app_type: 'spa', callbacks: [server.url], web_origins: [server.url], allowed_logout_urls: [server.url] })
  config = { domain, clientId: client.client_id, authorizationParams: { redirect_uri: server.url, ...extra.authorizationParams }, ...extra.options }
  return server
}

const titled = (page, want) => page.waitForFunction(w => document.title === w || document.title.startsWith('failed'), want).then(async () => assert.equal(await page.title(), want))

test('log in, call for a token with refresh token rotation, log out', async () => {
  const identifier = `https://${unique('api')}.example.com/`
  await management.resourceServers.create({ name: unique('api'), identifier, allow_offline_access: true, scopes: [{ value: 'read:things' }] })
  const app = await spa({ authorizationParams: { audience: identifier, scope: 'openid profile email read:things' }, options: { useRefreshTokens: true, cacheLocation: 'localstorage' } })
  const { page, close } = await browser()
  try {
    const email = address('spa')
    await management.users.create({ connection, email, password, verify_email: false })
    await page.goto(app.url)
    await titled(page, 'out')
    await page.evaluate(() => c.loginWithRedirect())
    await logIn(page, email)
    await page.waitForURL(app.url + '/')
    await titled(page, 'in')
    assert.equal((await page.evaluate(() => c.getUser())).email, email)
    const first = await page.evaluate(() => c.getTokenSilently())
    const second = await page.evaluate(() => c.getTokenSilently({ cacheMode: 'off' }))
    assert.notEqual(first, second)
    const payload = JSON.parse(Buffer.from(second.split('.')[1], 'base64url'))
    assert.ok([payload.aud].flat().includes(identifier))
    assert.match(payload.scope, /read:things/)
    await page.evaluate(() => c.logout({ logoutParams: { returnTo: location.origin } }))
    await page.waitForURL(app.url + '/')
    await titled(page, 'out')
  } finally {
    await close()
    await app.close()
  }
})

test('silent authentication in a frame', async () => {
  const app = await spa({ authorizationParams: { scope: 'openid profile email' }, options: {} })
  const { page, close } = await browser()
  try {
    const email = address('silent')
    await management.users.create({ connection, email, password, verify_email: false })
    await page.goto(app.url)
    await titled(page, 'out')
    await page.evaluate(() => c.loginWithRedirect())
    await logIn(page, email)
    await page.waitForURL(app.url + '/')
    await titled(page, 'in')
    // Nothing is kept in the page: after a reload the frame asks the server.
    await page.reload()
    await titled(page, 'in')
    assert.equal((await page.evaluate(() => c.getUser())).email, email)
  } finally {
    await close()
    await app.close()
  }
})

// npm express-openid-connect, unchanged, in two applications: log in once, be
// logged in at both, log out.
import test from 'node:test'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { address, application, browser, connection, issuer, logIn, management, password, serve, unique } from '../lib.mjs'

const require = createRequire(import.meta.url)
const express = require('express')
const { auth, requiresAuth } = require('express-openid-connect')

async function app(name) {
  let handler = (_, res) => res.end()
  const server = await serve((req, res) => handler(req, res))
  const client = await application({ name: unique(name), app_type: 'regular_web', callbacks: [`${server.url}/callback`], allowed_logout_urls: [server.url] })
  const site = express()
  site.use(auth({
    issuerBaseURL: issuer.slice(0, -1), baseURL: server.url, clientID: client.client_id, clientSecret: client.client_secret,
    secret: randomBytes(32).toString('hex'), session: { name: unique('session') }, // cookies know no ports
    authRequired: false, auth0Logout: false, idpLogout: true,
    authorizationParams: { response_type: 'code', scope: 'openid profile email' },
  }))
  site.get('/', (req, res) => res.send(req.oidc.isAuthenticated() ? 'in' : 'out'))
  site.get('/profile', requiresAuth(), (req, res) => res.json(req.oidc.user))
  handler = site
  return server
}

test('single sign-on over two applications', async () => {
  const one = await app('one'), two = await app('two')
  const { page, close } = await browser()
  try {
    const email = address('express')
    await management.users.create({ connection, email, password, verify_email: false })
    await page.goto(`${one.url}/profile`)
    await logIn(page, email)
    await page.waitForURL(`${one.url}/profile`)
    assert.equal(JSON.parse(await page.textContent('body')).email, email)
    await page.goto(`${two.url}/profile`)
    await page.waitForURL(`${two.url}/profile`)
    assert.equal(JSON.parse(await page.textContent('body')).email, email)
    await page.goto(`${one.url}/logout`)
    await page.waitForURL(one.url + '/')
    assert.equal(await page.textContent('body'), 'out')
    await page.goto(`${one.url}/profile`)
    await page.waitForSelector('input[name=password]')
  } finally {
    await close()
    await one.close()
    await two.close()
  }
})

test('a wrong password says so and stays on the page', async () => {
  const one = await app('wrong')
  const { page, close } = await browser()
  try {
    const email = address('wrong')
    await management.users.create({ connection, email, password, verify_email: false })
    await page.goto(`${one.url}/profile`)
    await logIn(page, email, 'not the password')
    await page.waitForSelector('[role=alert]')
    assert.match(await page.textContent('[role=alert]'), /Wrong email or password/)
    await logIn(page, email)
    await page.waitForURL(`${one.url}/profile`)
  } finally {
    await close()
    await one.close()
  }
})

// What the tests share: the tenant under test, its mailbox, a browser, and small
// servers that play the applications.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'node:http'
import { randomBytes } from 'node:crypto'
import { chromium } from 'playwright-core'
import { ManagementClient } from 'auth0'

export const domain = process.env.E2E_DOMAIN
export const issuer = `https://${domain}/`
export const tenant = JSON.parse(readFileSync(process.env.E2E_TENANT))
export const connection = 'Username-Password-Authentication'
export const password = 'Correct-horse-7-battery'

export const management = new ManagementClient({ domain, clientId: tenant.client_id, clientSecret: tenant.client_secret })

export const unique = (name) => `${name}-${randomBytes(4).toString('hex')}`
export const address = (name) => `${unique(name)}@example.com`

// application makes a client that may log users in through the database.
export async function application(properties) {
  const client = await management.clients.create({ oidc_conformant: true, ...properties })
  await enable(client.client_id, connection)
  return client
}

export async function enable(clientId, connectionName) {
  const found = await management.connections.list({ name: connectionName })
  const id = (found.data ?? found)[0].id
  await management.connections.clients.update(id, [{ client_id: clientId, status: true }])
}

// mailTo waits for a mail to an address and returns the newest.
export async function mailTo(to, subject) {
  for (let i = 0; i < 100; i++) {
    const all = await (await fetch(`${issuer}mailbox/api/messages?to=${encodeURIComponent(to)}`)).json()
    const hit = all.find(m => !subject || m.subject.match(subject))
    if (hit) return hit
    await new Promise(r => setTimeout(r, 100))
  }
  throw new Error(`no mail to ${to}`)
}

export const linkIn = (mail) => mail.text.match(/https:\/\/\S+/)[0]

// serve runs an application on a free port of localhost.
export async function serve(handler) {
  const server = createServer(handler)
  await new Promise(resolve => server.listen(0, 'localhost', resolve))
  const url = `http://localhost:${server.address().port}`
  return { url, close: () => new Promise(resolve => { server.closeAllConnections(); server.close(resolve) }) }
}

// browser starts Chromium with a profile of its own, as a person has it: the
// private windows that playwright opens otherwise block the cookies of frames.
export async function browser(options = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'e2e-profile-'))
  mkdirSync(join(profile, 'Default'))
  writeFileSync(join(profile, 'Default', 'Preferences'), JSON.stringify({ profile: { cookie_controls_mode: 0, block_third_party_cookies: false } }))
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    env: { ...process.env, HOME: process.env.E2E_HOME },
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--host-resolver-rules=MAP *.portcullis.test ${process.env.E2E_ADDRESS}`],
    ...options,
  })
  const close = async () => { await context.close(); rmSync(profile, { recursive: true, force: true }) }
  return { page: context.pages()[0] ?? await context.newPage(), context, close }
}

export async function logIn(page, email, secret = password) {
  await page.waitForSelector('input[name=username]')
  await page.fill('input[name=username]', email)
  await page.fill('input[name=password]', secret)
  await page.click('button.primary')
}

export async function signUp(page, email, secret = password) {
  await page.click('p.switch a')
  await page.waitForSelector('input[name=email]')
  await page.fill('input[name=email]', email)
  await page.fill('input[name=password]', secret)
  await page.click('button.primary')
}

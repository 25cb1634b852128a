// A resolver of the tests' own: names below portcullis.test lead to the node
// under test, without a line in the hosts file.
const dns = require('node:dns')
const address = process.env.E2E_ADDRESS
if (address) {
  const original = dns.lookup
  dns.lookup = function (host, options, callback) {
    if (typeof host === 'string' && host.endsWith('portcullis.test')) {
      if (typeof options === 'function') callback = options, options = {}
      const all = typeof options === 'object' && options !== null && options.all
      return process.nextTick(() => all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4))
    }
    return original.apply(this, arguments)
  }
}

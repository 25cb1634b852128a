// Package overload decides who waits and who is turned away when more requests
// come than the processors can serve.
//
// A Gate has a few slots, each for one request that is at work; a request that
// waits for the disk, for a password hash or for another host gives its slot back
// meanwhile. When all slots are taken, requests wait in a queue for their class,
// the higher class first, and when that is full or stands still they are turned
// away at once, with an error that says when to come again. So a flood costs
// little more than reading its requests, memory stays bounded, and what an
// operator needs to end it (health, the Management API) is served to the last.
package overload

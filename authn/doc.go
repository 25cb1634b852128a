// Package authn decides who a user is: it checks passwords, signs users up,
// resets passwords, verifies addresses, blocks guessing, and turns profiles of
// other providers into users. Every answer is the same, and takes the same work,
// whether the user exists or not.
//
// It leaves sessions and tokens to oauth, pages to login, and other providers'
// protocols to upstream.
package authn

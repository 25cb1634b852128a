// Package problem is the one vocabulary of failure: a kind, a stable code, a
// sentence for the person who has to act, and the cause for the log.
//
// Rooms return *Error; the edges turn it into one of three bodies: RFC 9457
// (control, dashboard), RFC 6749 section 5.2 (oauth), or the Management API's
// {statusCode, error, message, errorCode}. What nobody classified is Internal,
// and its cause never reaches a client.
package problem

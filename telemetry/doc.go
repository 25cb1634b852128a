// Package telemetry is what a node says of itself: the structured log, the
// metrics in Prometheus' form and, when a collector is configured, traces.
//
// It takes no decision on what is said; rooms hand in values. Nothing that
// identifies a user or opens a door belongs here.
package telemetry

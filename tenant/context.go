package tenant

import "context"

type contextKey struct{}

// WithTenant returns a context of a request to t.
func WithTenant(ctx context.Context, t *Tenant) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the tenant that the request is for. Every handler below
// the host router has one; elsewhere it is nil.
func FromContext(ctx context.Context) *Tenant {
	t, _ := ctx.Value(contextKey{}).(*Tenant)
	return t
}

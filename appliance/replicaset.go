package appliance

import (
	"context"
	"time"
)

// replicaSet is what the health check of that name asks: whether the database
// answers, and whether it keeps the promise that is expected of it.
func (n *Node) replicaSet(ctx context.Context) (map[string]error, error) {
	members := map[string]error{"this node": n.store.Ping(ctx)}
	if n.cfg.Database.synchronous() {
		members["synchronous standby"] = n.store.Synchronous(ctx)
	}
	if n.site != nil {
		members["site "+n.cfg.Site.Name] = n.site.Refusal()
	}
	return members, nil
}

// warnOfReplication says at the start that the database does not keep the promise
// that is expected of it. The node works all the same: that is for the operator to
// decide.
func (n *Node) warnOfReplication(ctx context.Context) {
	if !n.cfg.Database.synchronous() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := n.store.Synchronous(ctx); err != nil {
		n.logger.WarnContext(ctx, "acknowledged writes may be lost with the database's primary", "error", err)
	}
}

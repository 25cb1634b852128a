package appliance_test

import (
	"context"
	"testing"

	"github.com/portcullis-id/portcullis/appliance"
	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// TestSecondNodeWithoutAClusterIsRefused: a database has one node, or a cluster.
func TestSecondNodeWithoutAClusterIsRefused(t *testing.T) {
	dsn := storetest.PostgresDSN(t)
	first, second := clusterConfig(t), clusterConfig(t)
	for _, cfg := range []*configuration{&first, &second} {
		cfg.Database.DSN = config.Secret(dsn)
		cfg.PublicPort, cfg.Listen.Drain = 443, 0
	}
	second.MasterKeyFile = first.Data + "/master.key"
	run := func(cfg configuration, ready func()) (stop context.CancelFunc, ended chan error) {
		n, err := appliance.New(cfg, appliance.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n.OnReady = func(appliance.Ready) { ready() }
		ctx, stop := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		return stop, ended
	}
	answers := make(chan struct{})
	stop, ended := run(first, func() { close(answers) })
	select {
	case <-answers:
	case err := <-ended:
		t.Fatalf("the first node ended: %v", err)
	}
	_, refused := run(second, func() { t.Error("a second node answers") })
	if err := <-refused; problem.From(err).Code != "database_in_use" {
		t.Errorf("the second node ended with %v, want database_in_use", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	answers = make(chan struct{})
	stop, ended = run(second, func() { close(answers) })
	select {
	case <-answers:
	case err := <-ended:
		t.Fatalf("after the first had stopped, the second ended: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

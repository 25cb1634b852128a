package control

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// Identity is what makes this host a node of a cluster: files in the folder
// cluster of its data.
type Identity struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"` // HOST:PORT of row control, for the other nodes

	pair      tls.Certificate
	authority *x509.Certificate
}

const identityDir = "cluster"

func identityFiles(data string) (node, key, cert, ca string) {
	dir := filepath.Join(data, identityDir)
	return filepath.Join(dir, "node.json"), filepath.Join(dir, "node.key"), filepath.Join(dir, "node.crt"), filepath.Join(dir, "ca.crt")
}

// LoadIdentity reads the identity in a data folder. A host that is no node of a
// cluster has none: the error is fs.ErrNotExist.
func LoadIdentity(data string) (*Identity, error) {
	nodeFile, keyFile, certFile, caFile := identityFiles(data)
	raw, err := os.ReadFile(nodeFile)
	if err != nil {
		return nil, err
	}
	var id Identity
	if err := json.Unmarshal(raw, &id); err != nil || !idForm.MatchString(id.ID) {
		return nil, problem.New(problem.Invalid, "invalid_identity", "%s is no identity of a node; join the cluster again", nodeFile)
	}
	if id.pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return nil, fmt.Errorf("read this node's certificate: %w", err)
	}
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	if id.authority, err = parseCertificate(string(ca)); err != nil {
		return nil, fmt.Errorf("read the cluster's certificate %s: %w", caFile, err)
	}
	return &id, nil
}

// Joined reports whether a data folder has the identity of a cluster's node.
func Joined(data string) bool {
	nodeFile, _, _, _ := identityFiles(data)
	_, err := os.Stat(nodeFile)
	return !errors.Is(err, fs.ErrNotExist)
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// save writes the files; the identity last, for a host without it has not joined.
func (id *Identity) save(data, keyPEM, certPEM, caPEM string) error {
	nodeFile, keyFile, certFile, caFile := identityFiles(data)
	if err := os.MkdirAll(filepath.Dir(nodeFile), 0o700); err != nil {
		return fmt.Errorf("make the folder of the node's identity: %w", err)
	}
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{{keyFile, keyPEM}, {certFile, certPEM}, {caFile, caPEM}, {nodeFile, string(raw) + "\n"}} {
		if f.content == "" {
			continue
		}
		if err := writeFile(f.name, f.content); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file as a whole, so that a crash leaves the old or the new
// one.
func writeFile(name, content string) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // #nosec G304 -- a file of the data folder
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return nil
}

// pool trusts the cluster's authority alone.
func (id *Identity) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(id.authority)
	return p
}

// due reports whether the certificate is to be renewed.
func (id *Identity) due(now time.Time) bool {
	return now.After(id.pair.Leaf.NotAfter.Add(-renewBefore))
}

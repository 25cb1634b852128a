package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// The lives of certificates. A node's is renewed when a third of it is left.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	nodeLife      = 30 * 24 * time.Hour
	renewBefore   = nodeLife / 3
)

// serverName is in every node's certificate: nodes are reached by addresses that
// may change, and are known by the authority and their id.
const serverName = "node.portcullis.internal"

// Authority signs the nodes' certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authorityDoc is the authority as the store keeps it; the key is sealed there.
type authorityDoc struct {
	Certificate string    `json:"certificate"` // PEM
	PrivateKey  string    `json:"private_key"` // PEM
	CreatedAt   time.Time `json:"created_at"`
}

func newAuthority(now time.Time) (*authorityDoc, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Portcullis cluster " + rand.Text()[:8]},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &authorityDoc{Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		PrivateKey: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), CreatedAt: now}, nil
}

func (d *authorityDoc) authority() (*Authority, error) {
	pair, err := tls.X509KeyPair([]byte(d.Certificate), []byte(d.PrivateKey))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("read the cluster's authority: its key is no ECDSA key")
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // the reader never fails
	return n.Add(n, big.NewInt(1))
}

// maxCSR bounds a certificate request, in bytes.
const maxCSR = 8 << 10

// issue signs a certificate for a node, and returns its serial number. Of the
// request only the key counts.
func (a *Authority) issue(csrPEM string, id string, now time.Time) (certPEM, number string, err error) {
	wrong := problem.New(problem.Invalid, "invalid_request", "csr: it is no PKCS #10 certificate request in PEM with an ECDSA key")
	if len(csrPEM) > maxCSR {
		return "", "", wrong
	}
	block, _ := pem.Decode([]byte(csrPEM))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return "", "", wrong
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		return "", "", wrong
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return "", "", wrong
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: id}, DNSNames: []string{serverName}, URIs: []*url.URL{nodeURI(id)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(nodeLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key, a.key)
	if err != nil {
		return "", "", fmt.Errorf("sign the certificate of node %s: %w", id, err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), hex(tmpl.SerialNumber), nil
}

func hex(serial *big.Int) string { return serial.Text(16) }

func nodeURI(id string) *url.URL { return &url.URL{Scheme: "portcullis", Host: "node", Path: "/" + id} }

// nodeID is the id in a certificate that the authority has signed.
func nodeID(c *x509.Certificate) (string, bool) {
	for _, u := range c.URIs {
		if id, ok := strings.CutPrefix(u.Path, "/"); ok && u.Scheme == "portcullis" && u.Host == "node" && idForm.MatchString(id) {
			return id, true
		}
	}
	return "", false
}

// fingerprint names an authority in tokens.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request makes a key and the request for its certificate.
func request() (keyPEM, csrPEM string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// believe looks for the authority of a token among the certificates that a node
// shows, and checks that it has signed the node's.
func believe(chain []*x509.Certificate, want string) (*x509.Certificate, error) {
	for _, c := range chain {
		if subtle.ConstantTimeCompare([]byte(fingerprint(c)), []byte(want)) != 1 {
			continue
		}
		pool := x509.NewCertPool()
		pool.AddCert(c)
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: serverName}); err != nil {
			return nil, fmt.Errorf("the node's certificate is not of the cluster's authority: %w", err)
		}
		return c, nil
	}
	return nil, errors.New("the node is not of the cluster that made the token: its authority is another one")
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// A web app of the time before Jakarta.
package legacy;

import javax.servlet.http.HttpServlet;

public class Legacy extends HttpServlet {}
